import { manySlots } from "./manySlotsSuite.ts"
import { largePayloads } from "./manyTasksSuite.ts"
import { describeEach, mariadb } from "./stores.ts"

await describeEach([mariadb], (store) => {
  largePayloads(store)
  manySlots(store)
})
