import { describe } from "@effect/vitest"
import { temporaryDrivers } from "../sqlite/temporary.ts"
import { testLive } from "./live.ts"

describe("the store in SQLite", () => testLive({ make: temporaryDrivers }))
