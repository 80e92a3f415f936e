export const newIdea = {
  title: "New idea",
};
