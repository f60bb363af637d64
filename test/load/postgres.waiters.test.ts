import { manyWaiters } from "./manyWaitersSuite.ts"
import { describeEach, postgres } from "./stores.ts"

await describeEach([postgres], (store) => {
  if (store.hints) manyWaiters(store, true)
  manyWaiters(store, false)
})
