using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>A server with a clock of the test's, and a plugin whose calls a test can hold.</summary>
internal sealed class LimitScene(ServerFixture server, FakeTimeProvider time, Gate gate)
{
    public ServerFixture Server => server;

    public FakeTimeProvider Time => time;

    /// <summary>Holds the reads of the export "held", and the opening of the export "slow".</summary>
    public Gate Gate => gate;

    /// <summary>Lets time pass until a client is cut off.</summary>
    public async Task TimesOutAsync(WireClient client)
    {
        await time.AdvanceUntilAsync(client.Ended);
        await LimitCase.EndsAsync(client, NbdDisconnectReason.Timeout);
    }

    /// <summary>Sends reads, and lets them go once the log says that one waits.</summary>
    public async Task WaitsAsync(WireClient client, int requests, uint length)
    {
        for (int i = 0; i < requests; i++)
        {
            await client.SendRequestAsync(Cmd.Read, 0, length);
        }
        Assert.That(() => server.Log.Entries.Any(entry => entry.Text.Contains("waits", StringComparison.Ordinal)), Is.True.After(5000, 5));
        gate.Open();
        for (int i = 0; i < requests; i++)
        {
            Assert.That((await client.ReadReplyAsync()).Error, Is.EqualTo(WireError.Ok));
        }
    }
}
