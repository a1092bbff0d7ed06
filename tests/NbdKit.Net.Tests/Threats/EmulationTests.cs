using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>Hours of work for 32 bytes: zeroes and caching that are emulated over an enormous range.</summary>
public sealed class EmulationTests
{
    private const long Size = 1L << 62;

    private static NbdExportInfo Enormous => new()
    {
        Size = Size,
        CanWrite = true,
        CanZero = Support.Emulate,
        CanFastZero = true,
        CanCache = Support.Emulate,
    };

    [TestCase(Cmd.WriteZeroes), TestCase(Cmd.Cache)]
    [Property("Threat", "P29")]
    public async Task An_emulation_of_any_length_lets_others_be_served_and_ends_with_its_connection(ushort command)
    {
        var plugin = new LazyPlugin { Info = Enormous };
        await using var server = new NbdServer(
            NbdBackend.Compose(plugin), new NbdServerOptions { StopTimeout = TimeSpan.FromMilliseconds(200) });
        await server.StartAsync();
        WireClient bystander = await ClientAsync(server);
        WireClient client = await ClientAsync(server);

        // On a thread of its own: it would never come back from a plugin that completes at once if the server did not let go.
        WireCall endless = await Task.Run(() => client.SendRequestAsync(command, 0, Size)).Soon();

        for (int i = 0; i < 20; i++)
        {
            await bystander.ExpectAliveAsync(null);
        }
        await client.SendRequestAsync(Cmd.Read, 0, 512);
        WireReply read = await client.ReadReplyAsync();
        Assert.That((read.Call.Command, read.Error), Is.EqualTo((Cmd.Read, WireError.Ok)), $"its own requests go on beside {endless}");
        await server.StopAsync().Soon();
        await client.ExpectEndAsync(NbdDisconnectReason.ServerStopped);
        Assert.That(plugin.IsClosed, Is.True, "nothing runs on");
        Assert.That(plugin.Longest, Is.LessThanOrEqualTo(32 << 20));
    }

    [Test, Property("Threat", "P29")]
    public async Task Beyond_the_end_nothing_is_begun_and_a_fast_zero_is_refused_at_once()
    {
        var plugin = new LazyPlugin { Info = Enormous };
        await using var server = new NbdServer(NbdBackend.Compose(plugin));
        await server.StartAsync();
        WireClient client = await ClientAsync(server);
        foreach (ulong length in new ulong[] { (ulong)Size + 1, 1ul << 63, ulong.MaxValue - 1, ulong.MaxValue })
        {
            await client.ExpectCallAsync(WireError.NoSpc, Cmd.WriteZeroes, 0, length);
            await client.ExpectCallAsync(WireError.Inval, Cmd.Cache, 0, length);
        }
        await client.ExpectCallAsync(WireError.NotSup, Cmd.WriteZeroes, 0, Size, CmdFlag.FastZero);
        Assert.That(plugin.Longest, Is.Zero);
        await client.DisposeAsync();
    }

    private static async Task<WireClient> ClientAsync(NbdServer server)
    {
        var pipes = new PipePair();
        var client = new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
        await client.GreetAsync();
        await client.ExtendedAsync();
        await client.GoAsync();
        return client;
    }
}
