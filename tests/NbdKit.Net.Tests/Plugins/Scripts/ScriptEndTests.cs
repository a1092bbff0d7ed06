using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins.Scripts;

/// <summary>What scripts leave behind, and how they are ended.</summary>
[Platform("Linux")]
public sealed class ScriptEndTests
{
    [Test]
    public async Task An_error_text_comes_through_although_nobody_wants_what_was_printed()
    {
        // What is printed here is thrown away; the text comes after the end, from a process that the script left.
        await using NbdBackend chain = NbdBackend.Compose(new EvalPlugin
        {
            Scripts = With(("can_flush", "exit 0"), ("flush", "echo noise; (sleep 0.2; echo ENOSPC full >&2) & exit 1")),
        });
        await using NextContext disk = await chain.OpenAsync();
        NbdException failure = TestData.Failure(() => disk.FlushAsync(default).AsTask());
        Assert.That((failure.Error, failure.Message), Is.EqualTo((NbdError.NoSpace, "eval: flush: full")));
    }

    [Test]
    public async Task A_close_that_hangs_is_killed()
    {
        var time = new FakeTimeProvider();
        using var folder = new ScratchDirectory();
        NbdBackend chain = NbdBackend.Compose(new EvalPlugin
        {
            Scripts = With(("close", $"echo > {folder["closing"]}; exec sleep 300"), ("thread_model", "echo serialize_connections")),
            TimeProvider = time,
        });
        NextContext disk = await chain.OpenAsync();
        Task closing = disk.DisposeAsync().AsTask();
        while (!File.Exists(folder["closing"]))
        {
            await Task.Delay(5);
        }
        Assert.That(closing.IsCompleted, Is.False);
        time.Advance(TimeSpan.FromSeconds(30));
        try
        {
            await closing.Soon();
        }
        catch (NbdException e)
        {
            Assert.That(e.Message, Is.EqualTo("eval: close: the script was killed after 30 seconds"));
        }
        // The next client need not wait for it.
        NextContext next = await chain.OpenAsync().Soon();
        Task ending = next.DisposeAsync().AsTask();
        while (!ending.IsCompleted)
        {
            time.Advance(TimeSpan.FromSeconds(30));
            await Task.WhenAny(ending, Task.Delay(20));
        }
        await chain.DisposeAsync().Soon();
    }

    private static Dictionary<string, string> With(params (string Method, string Text)[] scripts)
    {
        var all = new Dictionary<string, string> { ["get_size"] = "echo 64k", ["pread"] = "head -c $3 /dev/zero" };
        foreach ((string method, string text) in scripts)
        {
            all[method] = text;
        }
        return all;
    }
}
