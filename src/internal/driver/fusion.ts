/** Fusion: where a backend and a broker are the same store, two operations are one step of it. */

/** A backend and a broker, as far as fusion goes. */
interface Pairing<F extends { readonly store: object }> {
  readonly backend: { readonly fusion: F | undefined }
  readonly broker: { readonly store: object | undefined }
}

/** Returns the fused operations of a pairing; `undefined` where the two are different stores. */
export const fusionOf = <F extends { readonly store: object }>({
  backend,
  broker
}: Pairing<F>): F | undefined =>
  backend.fusion !== undefined && backend.fusion.store === broker.store ? backend.fusion : undefined
