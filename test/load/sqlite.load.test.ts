import { manySlots } from "./manySlotsSuite.ts"
import { largePayloads } from "./manyTasksSuite.ts"
import { describeEach, sqlite } from "./stores.ts"

await describeEach([sqlite], (store) => {
  largePayloads(store)
  manySlots(store)
})
