/** The size of answers. A Map has no network between it and its callers; a store that has one bounds its answers so. */
import { maxReplySize } from "chicory/driver"

/** Returns the first items that make an answer: at least one. The caller asks for the rest with another call. */
export const fitting = <A>(items: ReadonlyArray<A>, sizeOf: (item: A) => number): ReadonlyArray<A> => {
  let size = 0
  const end = items.findIndex((item, index) => (size += sizeOf(item)) > maxReplySize && index > 0)
  return end === -1 ? items : items.slice(0, end)
}
