/**
 * A map whose entries come and go by the thousands a second.
 *
 * V8 puts the next table of a map where the last one lies. Once that is among the old objects, every table that a map
 * has outgrown keeps alive what it held, until the next full collection: most of what passes through a long-lived map
 * then survives every small collection, which makes them take several times as long. So the map is made anew before
 * its table grows old.
 */
export class ChurnMap<in out K, in out V> {
  private map = new Map<K, V>()
  private writes = 0

  get size(): number {
    return this.map.size
  }

  get(key: K): V | undefined {
    return this.map.get(key)
  }

  has(key: K): boolean {
    return this.map.has(key)
  }

  set(key: K, value: V): void {
    if (++this.writes > 1024 + 2 * this.map.size) {
      this.map = new Map(this.map)
      this.writes = 0
    }
    this.map.set(key, value)
  }

  delete(key: K): boolean {
    return this.map.delete(key)
  }

  /** In the order in which they came; of those that come or go meanwhile nothing is promised. */
  values(): Iterable<V> {
    return this.map.values()
  }

  [Symbol.iterator](): Iterator<[K, V]> {
    return this.map[Symbol.iterator]()
  }
}
