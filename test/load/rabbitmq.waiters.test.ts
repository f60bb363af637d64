import { manyWaiters } from "./manyWaitersSuite.ts"
import { describeEach, rabbitmq } from "./stores.ts"

await describeEach([rabbitmq], (store) => {
  if (store.hints) manyWaiters(store, true)
  manyWaiters(store, false)
})
