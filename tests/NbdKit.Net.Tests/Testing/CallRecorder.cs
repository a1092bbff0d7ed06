namespace NbdKit.Tests.Testing;

/// <summary>The callbacks of all recording layers that share it, in the order in which they came.</summary>
internal sealed class CallRecorder
{
    private readonly Lock _lock = new();
    private readonly List<RecordedCall> _calls = [];

    public IReadOnlyList<RecordedCall> Calls
    {
        get
        {
            lock (_lock)
            {
                return [.. _calls];
            }
        }
    }

    /// <summary>The calls as text, such as <c>plugin#1.open</c>.</summary>
    public IReadOnlyList<string> Lines => [.. Calls.Select(call => call.ToString())];

    public void Add(RecordedCall call)
    {
        lock (_lock)
        {
            _calls.Add(call);
        }
    }

    public void Clear()
    {
        lock (_lock)
        {
            _calls.Clear();
        }
    }

    /// <summary>How often a callback was called, whether it failed or not.</summary>
    public int Count(string layer, string callback)
        => Calls.Count(call => call.Layer == layer && call.Callback == callback && !call.Failed);

    /// <summary>
    /// Fails the test unless every context that was opened was closed exactly once, nothing came after its close, and
    /// every filter context that was prepared was finalized exactly once.
    /// </summary>
    public void AssertBalanced()
    {
        foreach (IGrouping<(string Layer, int Context), RecordedCall> context in
            Calls.Where(call => call.Context > 0).GroupBy(call => (call.Layer, call.Context)))
        {
            string[] calls = [.. context.Select(call => call.Callback + (call.Failed ? " failed" : ""))];
            string all = $"{context.Key.Layer}#{context.Key.Context}: {string.Join(", ", calls)}";
            if (calls.Contains("open failed"))
            {
                Assert.That(calls, Is.EqualTo(new[] { "open", "open failed" }), all);
                continue;
            }
            Assert.That(calls.Count(call => call == "open"), Is.EqualTo(1), all);
            Assert.That(calls.Count(call => call == "close"), Is.EqualTo(1), all);
            Assert.That(calls[^1], Is.AnyOf("close", "close failed"), all);
            bool prepared = calls.Contains("prepare") && !calls.Contains("prepare failed") && !calls.Contains("info failed");
            Assert.That(calls.Count(call => call == "finalize"), Is.EqualTo(prepared ? 1 : 0), all);
        }
    }
}
