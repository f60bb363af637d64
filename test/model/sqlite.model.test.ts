import { describe } from "@effect/vitest"
import { temporaryDrivers } from "../sqlite/temporary.ts"
import { testLive } from "./liveModel.ts"

describe("SQLite", () => testLive({ make: temporaryDrivers }))
