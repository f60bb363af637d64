/** Detects transactions of `SqlClient`s. */
import { Context } from "effect"

/** The reference by which `effect/sql` keeps the key of the innermost transaction's service. */
const CurrentTransaction = Context.Reference<Context.Key<never, object> | undefined>(
  "effect/sql/CurrentTransactionService",
  { defaultValue: () => undefined }
)

/** Whether the context is that of an open transaction. */
export const isInTransaction = (context: Context.Context<never>): boolean => {
  const key = Context.get(context, CurrentTransaction)
  return key !== undefined && Context.getOrUndefined(context, key) !== undefined
}
