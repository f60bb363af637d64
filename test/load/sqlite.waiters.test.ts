import { manyWaiters } from "./manyWaitersSuite.ts"
import { describeEach, sqlite } from "./stores.ts"

await describeEach([sqlite], (store) => {
  if (store.hints) manyWaiters(store, true)
  manyWaiters(store, false)
})
