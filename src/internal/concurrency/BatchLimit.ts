/**
 * How many items a call to a store has at present: half as many after a call that failed because the store is away, and
 * twice as many after each that succeeds, up to the usual number.
 */
export class BatchLimit {
  private readonly max: number
  /** Items per call, at most; at least 1. */
  current: number

  constructor(max: number) {
    this.max = max
    this.current = max
  }

  onSuccess(): void {
    if (this.current < this.max) this.current = Math.min(this.max, 2 * this.current)
  }

  /** Takes note of a failed call with that many items. */
  onFailure(count: number): void {
    this.current = Math.max(1, Math.min(this.current, count) >> 1)
  }
}
