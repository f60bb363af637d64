/**
 * A binary heap whose members know their place in it, so that any of them can be taken out, not only the first.
 */

/** What a heap holds. A member is in one heap at a time. */
export interface Member {
  /** Its index in the heap; -1 where it is in none. The heap writes it. */
  position: number
}

/** Members in the order that `before` gives: the first at hand, each change in logarithmic time. */
export class Heap<A extends Member> {
  private readonly items: Array<A> = []
  private readonly before: (self: A, that: A) => boolean

  constructor(before: (self: A, that: A) => boolean) {
    this.before = before
  }

  get size(): number {
    return this.items.length
  }

  /** The first member, which stays. */
  peek(): A | undefined {
    return this.items[0]
  }

  /** Takes in a member that is in no heap. */
  push(item: A): void {
    this.items.push(item)
    this.place(item, this.items.length - 1)
  }

  /** Takes a member out, if this heap holds it. */
  remove(item: A): void {
    const index = item.position
    if (index < 0 || this.items[index] !== item) return
    item.position = -1
    const last = this.items.pop()
    if (last !== undefined && last !== item) this.place(last, index)
  }

  /** Puts a member at an index, or where it belongs above or below. */
  private place(item: A, start: number): void {
    let index = start
    while (index > 0) {
      const above = (index - 1) >> 1
      const parent = this.items[above]
      if (parent === undefined || !this.before(item, parent)) break
      this.items[index] = parent
      parent.position = index
      index = above
    }
    while (index * 2 + 1 < this.items.length) {
      let below = index * 2 + 1
      let child = this.items[below]
      const sibling = this.items[below + 1]
      if (sibling !== undefined && child !== undefined && this.before(sibling, child)) {
        below++
        child = sibling
      }
      if (child === undefined || !this.before(child, item)) break
      this.items[index] = child
      child.position = index
      index = below
    }
    this.items[index] = item
    item.position = index
  }
}
