import { manySlots } from "./manySlotsSuite.ts"
import { largePayloads, manyTasks } from "./manyTasksSuite.ts"
import { describeEach, redis } from "./stores.ts"

await describeEach([redis], (store) => {
  manyTasks(store)
  largePayloads(store)
  manySlots(store)
})
