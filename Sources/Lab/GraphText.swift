public import PipelineConfig
import PipelineCore

/// The pipelines of a file as text that other programs draw.
public enum GraphText {
    /// Nodes and arrows, before either language.
    private struct Shape {
        var groups: [(name: String, nodes: [(id: String, label: String)])] = []
        var arrows: [(from: String, to: String, label: String)] = []
    }

    private static func shape(_ pipelines: [PipelinePlan]) -> Shape {
        var shape = Shape()
        func id(_ pipeline: Int, _ part: Int) -> String { "p\(pipeline)s\(part)" }
        for (index, plan) in pipelines.enumerated() {
            shape.groups.append(
                (plan.name, plan.parts.enumerated().map { (id(index, $0), "\($1.name) (\($1.kind.rawValue))") })
            )
            let flow = plan.parts.indices.filter { plan.parts[$0].kind != .sink }
            for (from, to) in zip(flow, flow.dropFirst()) { shape.arrows.append((id(index, from), id(index, to), "")) }
            if let last = flow.last {
                for sink in plan.parts.indices where plan.parts[sink].kind == .sink {
                    shape.arrows.append((id(index, last), id(index, sink), ""))
                }
            }
            for source in plan.sources {
                guard let (scheme, name) = source.linkedPipeline,
                    let server = pipelines.firstIndex(where: { $0.name == name }),
                    let transport = plan.parts.firstIndex(where: { $0.kind == .transport })
                else { continue }
                shape.arrows.append((id(server, 0), id(index, transport), "\(source.name), \(scheme)"))
            }
        }
        return shape
    }

    /// A Mermaid flowchart.
    public static func mermaid(_ pipelines: [PipelinePlan]) -> String {
        let shape = shape(pipelines)
        var lines = ["flowchart LR"]
        for (index, group) in shape.groups.enumerated() {
            lines.append("  subgraph g\(index)[\"\(escaped(group.name))\"]")
            for node in group.nodes { lines.append("    \(node.id)[\"\(escaped(node.label))\"]") }
            lines.append("  end")
        }
        for arrow in shape.arrows {
            let label = arrow.label.isEmpty ? "-->" : "-. \"\(escaped(arrow.label))\" .->"
            lines.append("  \(arrow.from) \(label) \(arrow.to)")
        }
        return lines.joined(separator: "\n")
    }

    /// A Graphviz graph.
    public static func dot(_ pipelines: [PipelinePlan]) -> String {
        let shape = shape(pipelines)
        var lines = ["digraph tributary {", "  rankdir=LR;", "  node [shape=box];"]
        for (index, group) in shape.groups.enumerated() {
            lines.append("  subgraph cluster_\(index) {")
            lines.append("    label=\(SummaryValue.quoted(group.name));")
            for node in group.nodes { lines.append("    \(node.id) [label=\(SummaryValue.quoted(node.label))];") }
            lines.append("  }")
        }
        for arrow in shape.arrows {
            let label = arrow.label.isEmpty ? "" : " [style=dashed, label=\(SummaryValue.quoted(arrow.label))]"
            lines.append("  \(arrow.from) -> \(arrow.to)\(label);")
        }
        return (lines + ["}"]).joined(separator: "\n")
    }

    private static func escaped(_ text: String) -> String { text.replacing("\"", with: "#quot;") }
}
