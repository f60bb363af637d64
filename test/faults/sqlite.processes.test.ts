import { describe } from "@effect/vitest"
import * as TemporaryPlaces from "../support/temporaryLocations.ts"
import * as ProcessSuites from "./processSuites.ts"

describe("processes on SQLite", () => ProcessSuites.suite("sqlite", TemporaryPlaces.sqlite))
