/** Compares paired measurements of two sides. */

/** The values of this side and of the other. */
export type Pair = readonly [mine: number, theirs: number]

export interface PairedRatio {
  /** The geometric mean of the ratios `mine / theirs`. */
  readonly ratio: number
  /** The 95 % interval of that mean. */
  readonly low: number
  readonly high: number
}

/** Student's t for a two-sided 95 % interval, by degrees of freedom from 1 to 30. */
const t95 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131,
  2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042
]
/** Above 30 degrees of freedom this is the value for 30, which makes the interval up to 4 % too wide. */
const quantile = (freedom: number) => t95[Math.min(freedom, t95.length) - 1] as number

/**
 * Returns the paired ratio. Its interval is by Student's t over the logarithms of the pairs' ratios. Returns
 * `undefined` for fewer than two pairs, and if a ratio has no logarithm.
 */
export const pairedRatio = (pairs: ReadonlyArray<Pair>): PairedRatio | undefined => {
  const logs = pairs.map(([mine, theirs]) => Math.log(mine / theirs))
  if (logs.length < 2 || !logs.every(Number.isFinite)) return undefined
  const mean = logs.reduce((sum, log) => sum + log, 0) / logs.length
  const variance = logs.reduce((sum, log) => sum + (log - mean) ** 2, 0) / (logs.length - 1)
  const half = quantile(logs.length - 1) * Math.sqrt(variance / logs.length)
  return { ratio: Math.exp(mean), low: Math.exp(mean - half), high: Math.exp(mean + half) }
}

/** Whether the interval is narrower than ±8 %: its ends are less than a factor of 1.08 from the ratio. */
export const isNarrow = ({ high, ratio }: PairedRatio): boolean => high / ratio < 1.08

export const containsOne = ({ high, low }: PairedRatio): boolean => low <= 1 && 1 <= high
