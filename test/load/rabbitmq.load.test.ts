import { manySlots } from "./manySlotsSuite.ts"
import { largePayloads } from "./manyTasksSuite.ts"
import { describeEach, rabbitmq } from "./stores.ts"

await describeEach([rabbitmq], (store) => {
  largePayloads(store)
  manySlots(store)
})
