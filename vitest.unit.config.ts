import { defineConfig } from "vitest/config"
import config from "./vitest.config.ts"

/** The tests that need no server. */
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    include: ["test/*.test.ts", "test/{fuzz,internal,memory}/**/*.test.ts"],
    exclude: ["test/fuzz/ids.test.ts"]
  }
})
