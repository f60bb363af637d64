import { manyWaiters } from "./manyWaitersSuite.ts"
import { describeEach, mariadb } from "./stores.ts"

await describeEach([mariadb], (store) => {
  if (store.hints) manyWaiters(store, true)
  manyWaiters(store, false)
})
