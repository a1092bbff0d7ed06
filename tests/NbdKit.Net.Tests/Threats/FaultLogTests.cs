using Microsoft.Extensions.Logging;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>A plugin with a defect, and a client that knows how to reach it: the log says so, and is not filled.</summary>
public sealed class FaultLogTests : WireTest
{
    private const int Requests = 1000;

    [Test, Property("Threat", "P37")]
    public async Task A_client_that_runs_into_a_defect_again_and_again_does_not_fill_the_log()
    {
        var export = new TestExport { Before = _ => throw new InvalidOperationException("the defect") };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync();
        for (int i = 0; i < Requests; i++)
        {
            await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, 512);
        }
        LogEntry[] said = [.. server.Log.Entries.Where(entry => entry.Text.Contains("the defect", StringComparison.Ordinal))];
        // With each doubling: the first says what, the others how often.
        Assert.That(said.Select(entry => entry.Level), Is.EqualTo(Enumerable.Repeat(LogLevel.Error, 10)));
        Assert.That(said[0].Exception, Is.InstanceOf<InvalidOperationException>());
        Assert.That(said[^1].Text, Does.Contain("512"));
    }

    [Test, Property("Threat", "nbdkit-1.44-names-in-logs")]
    public async Task Text_inside_a_defect_is_escaped()
    {
        var export = new TestExport { Before = _ => throw new InvalidOperationException("a\nwarn: forged", new IOException("b\u001b[2J")) };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync();
        await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, 512);
        LogEntry said = server.Log.Entries.Single(entry => entry.Text.Contains("forged", StringComparison.Ordinal));
        Assert.That((said.Text.Contains('\n', StringComparison.Ordinal), said.Exception), Is.EqualTo((false, (Exception?)null)));
        Assert.That(said.Text, Does.Contain(nameof(IOException)).And.Contain(nameof(Text_inside_a_defect_is_escaped)), "the stack is told");
    }

    [Test, Property("Threat", "N08")]
    public async Task A_defect_that_does_not_say_what_it_is_fails_one_request([Values] bool later)
    {
        var export = new TestExport { Before = _ => later ? FailLaterAsync() : throw new SilentException() };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync();
        await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, 512);
        Assert.That(server.Log.Entries.Single(entry => entry.Level == LogLevel.Error).Text, Does.Contain(nameof(SilentException)));
        export.Before = null;
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    private static async ValueTask FailLaterAsync()
    {
        await Task.Yield();
        throw new SilentException();
    }

    /// <summary>An exception whose text is made when it is asked for, which fails as well.</summary>
    private sealed class SilentException : Exception
    {
        public override string Message => throw new InvalidOperationException("There is no text.");
    }
}
