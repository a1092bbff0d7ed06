using Microsoft.Extensions.Logging;

namespace NbdKit.Tests.Testing;

/// <summary>Recording filters over a recording plugin, in one record, and what the library logged about them.</summary>
internal sealed class RecordedChain
{
    /// <summary>Composes a chain of a plugin named plugin and filters of the names given, the first nearest the client.</summary>
    public RecordedChain(params IReadOnlyList<string> filters)
        : this(65_536, filters)
    {
    }

    /// <summary>Composes a chain over a plugin of a size.</summary>
    public RecordedChain(int size, IReadOnlyList<string> filters)
    {
        Plugin = new RecordingPlugin(Calls) { Data = new byte[size] };
        Filters = [.. filters.Select(name => new RecordingFilter(Calls, name))];
        Backend = NbdBackend.Compose(Plugin, Filters);
    }

    public CallRecorder Calls { get; } = new();

    public RecordingPlugin Plugin { get; }

    public IReadOnlyList<RecordingFilter> Filters { get; }

    public NbdBackend Backend { get; }

    public RecordingLog Log { get; } = new();

    /// <summary>The calls since the last time, as text, and forgets them.</summary>
    public IReadOnlyList<string> Take()
    {
        IReadOnlyList<string> lines = Calls.Lines;
        Calls.Clear();
        return lines;
    }

    /// <summary>The script of a layer.</summary>
    public CallScript Script(string layer) => layer == Plugin.Name ? Plugin.Script : Filters.Single(f => f.Name == layer).Script;

    /// <summary>The texts of the log, from warnings upwards.</summary>
    public IReadOnlyList<string> Warnings
        => [.. Log.Entries.Where(e => e.Level >= LogLevel.Warning).Select(e => e.Text)];

    /// <summary>
    /// Fails the test unless every context that was opened was closed exactly once and last, and every filter context
    /// whose prepare succeeded was finalized exactly once, before its close.
    /// </summary>
    public static void AssertBalanced(IReadOnlyList<RecordedCall> calls)
    {
        foreach (IGrouping<(string Layer, int Context), RecordedCall> context in
            calls.Where(call => call.Context > 0).GroupBy(call => (call.Layer, call.Context)))
        {
            string[] names = [.. context.Select(call => call.Callback + (call.Failed ? " failed" : ""))];
            string all = $"{context.Key.Layer}#{context.Key.Context}: {string.Join(", ", names)}";
            if (names.Contains("open failed"))
            {
                Assert.That(names, Is.EqualTo(new[] { "open", "open failed" }), all);
                continue;
            }
            Assert.That(names.Count(name => name == "open"), Is.EqualTo(1), all);
            Assert.That(names.Count(name => name == "close"), Is.EqualTo(1), all);
            Assert.That(names[^1], Is.AnyOf("close", "close failed"), all);
            bool prepared = names.Contains("prepare") && !names.Contains("prepare failed");
            Assert.That(names.Count(name => name == "finalize"), Is.EqualTo(prepared ? 1 : 0), all);
        }
    }
}
