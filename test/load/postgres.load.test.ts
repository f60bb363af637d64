import { manySlots } from "./manySlotsSuite.ts"
import { largePayloads, manyTasks } from "./manyTasksSuite.ts"
import { describeEach, postgres } from "./stores.ts"

await describeEach([postgres], (store) => {
  manyTasks(store)
  largePayloads(store)
  manySlots(store)
})
