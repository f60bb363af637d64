/** The worker process of a later release, whose schema has one more step: takes the arguments of `processWorker.ts`. */
import { addStep } from "./laterSchema.ts"
import * as StoreLocations from "./storeLocations.ts"

const location = StoreLocations.decode(process.argv[2])
if (!StoreLocations.isSql(location)) throw new Error("it needs a database")
addStep(location.dialect)
await import("./processWorker.ts")
