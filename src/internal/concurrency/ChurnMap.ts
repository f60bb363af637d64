/**
 * A map whose entries come and go by the thousands a second.
 *
 * V8 allocates the next table of a map in the generation of the last one. Once that is the old generation, every table
 * that the map outgrows keeps its entries alive until the next full collection, and minor collections take several
 * times as long. So the map is copied before its table is promoted.
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

  clear(): void {
    this.map = new Map()
    this.writes = 0
  }

  /** Iterates in the order of insertion. Entries that are added or removed meanwhile may or may not be seen. */
  values(): Iterable<V> {
    return this.map.values()
  }

  [Symbol.iterator](): Iterator<[K, V]> {
    return this.map[Symbol.iterator]()
  }
}
