/** An incarnation as a field of a line: letters and digits, or `-` for an empty one. */

/** Encodes an incarnation. */
export const encode = (incarnation: string): string => (incarnation === "" ? "-" : incarnation)

/** Decodes a field. */
export const decode = (field: string): string => (field === "-" ? "" : field)
