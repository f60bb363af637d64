/**
 * A binary heap whose members know their position, so that any member can be removed, not only the first.
 */

/** A member of a heap, and of one heap at a time. */
export interface Member {
  /** The index in the heap; -1 outside of any heap. The heap writes it. */
  position: number
}

/** Orders members by `before`. Reading the first takes constant time, each change logarithmic time. */
export class Heap<A extends Member> {
  private readonly items: Array<A> = []
  private readonly before: (self: A, that: A) => boolean

  constructor(before: (self: A, that: A) => boolean) {
    this.before = before
  }

  get size(): number {
    return this.items.length
  }

  /** Returns the first member without removing it. */
  peek(): A | undefined {
    return this.items[0]
  }

  /** Iterates over the members in no particular order. The heap must not change meanwhile. */
  [Symbol.iterator](): IterableIterator<A> {
    return this.items.values()
  }

  /** Adds a member that is in no heap. */
  push(item: A): void {
    this.items.push(item)
    this.place(item, this.items.length - 1)
  }

  /** Removes a member, if this heap holds it. */
  remove(item: A): void {
    const index = item.position
    if (index < 0 || this.items[index] !== item) return
    item.position = -1
    const last = this.items.pop()
    if (last !== undefined && last !== item) this.place(last, index)
  }

  /** Moves a member from an index up or down to its position. */
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
