/** Builds that can be selected one by one; a filter is for more. Their ids have to fit into the text of a filter. */
export const MAX_SELECTED = 100;
