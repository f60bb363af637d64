import { assert, describe, it } from "@effect/vitest"

/** Skips a suite and logs what is missing, if anything is. In continuous integration the suite fails instead. */
export const describeUnless = (missing: string | undefined, name: string, body: () => void): void => {
  if (missing === undefined) {
    describe(name, body)
  } else if (process.env["CI"] === "true") {
    describe(name, () => it("has its server", () => assert.fail(missing)))
  } else {
    console.warn(`Skipped: ${name}. ${missing}`)
    describe.skip(name, body)
  }
}
