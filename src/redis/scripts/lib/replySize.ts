/** How scripts read texts of which not all may fit into an answer. */

/**
 * How many texts a script reads at once. It looks at their sizes, which it knows only then, before it reads more; so a
 * server copies no more than these for nothing, at most 4 MiB each.
 */
export const TEXTS_AT_ONCE = 16
