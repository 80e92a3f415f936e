export const panels = {
  label: "Parts of the build",
  tabs: {
    preview: "Preview",
    changes: "Changes",
    files: "Files",
    documents: "Documents",
    screenshots: "Screenshots",
    details: "Details",
  },
};
