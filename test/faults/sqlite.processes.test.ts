import { describe } from "@effect/vitest"
import * as TemporaryLocations from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

describe("processes on SQLite", () => ProcessSuites.suite("sqlite", TemporaryLocations.sqlite))
