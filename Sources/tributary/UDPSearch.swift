import ArgumentParser
import PipelineRuntime
import RateTest

extension UDPTest {
    /// Searches for the highest rate.
    func perform(_ search: Search, _ client: TestClient, _ plan: TestPlan, _ control: RunControl) async throws {
        throw ValidationError("--search \(search.rawValue)")
    }
}
