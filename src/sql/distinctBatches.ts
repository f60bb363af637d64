/** An item of a batch, with its index there. */
export interface Indexed<out A> {
  readonly item: A
  readonly index: number
}

/**
 * Splits a batch into batches in which every id occurs once. Items with the same id are in consecutive batches, in
 * order, so that they are applied one after the other.
 */
export const distinctBatches = <A>(
  batch: ReadonlyArray<A>,
  idOf: (item: A) => string
): ReadonlyArray<ReadonlyArray<Indexed<A>>> => {
  const counts = new Map<string, number>()
  const batches: Array<Array<Indexed<A>>> = []
  for (let index = 0; index < batch.length; index++) {
    const item = batch[index]!
    const id = idOf(item)
    const count = counts.get(id) ?? 0
    counts.set(id, count + 1)
    ;(batches[count] ??= []).push({ item, index })
  }
  return batches
}
