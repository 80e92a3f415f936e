export const build = {
  title: "Build",
};
