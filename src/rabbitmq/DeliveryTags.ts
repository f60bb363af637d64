/**
 * The delivery tags of one channel that are not acked yet. Says which of them one frame with the `multiple` flag can cover.
 */

/** Tags, grouped into frames. */
export interface Frames {
  /** One frame covers all unacked tags up to this one. */
  readonly multipleUpTo: number | undefined
  /** One frame for each of these. */
  readonly single: ReadonlyArray<number>
}

/** The unacked delivery tags of a channel. */
export class DeliveryTags {
  /** In ascending order. */
  private tags = new Set<number>()
  /** How many tags were ever added, and the highest of them. They differ while a tag below the highest is still to be added. */
  private added = 0
  private highest = 0

  add(tag: number): void {
    this.added++
    if (tag > this.highest) {
      this.highest = tag
      this.tags.add(tag)
    } else {
      // a message from `basic.get` is added after messages that were pushed behind it
      this.tags = new Set([...this.tags, tag].sort((a, b) => a - b))
    }
  }

  /** Removes tags, and groups them into frames. */
  remove(tags: ReadonlySet<number>): Frames {
    let multipleUpTo: number | undefined
    if (this.added === this.highest) {
      for (const tag of this.tags) {
        if (!tags.has(tag)) break
        multipleUpTo = tag
      }
    }
    const single: Array<number> = []
    for (const tag of tags) {
      this.tags.delete(tag)
      if (multipleUpTo === undefined || tag > multipleUpTo) single.push(tag)
    }
    return { multipleUpTo, single }
  }
}
