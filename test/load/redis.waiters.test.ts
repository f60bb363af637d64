import { manyWaiters } from "./manyWaitersSuite.ts"
import { describeEach, redis } from "./stores.ts"

await describeEach([redis], (store) => {
  if (store.hints) manyWaiters(store, true)
  manyWaiters(store, false)
})
