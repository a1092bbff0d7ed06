using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Rules of zeroes and trims that begin on the wire.</summary>
public sealed class EmulationServerTests
{
    [Test, Property("Rule", "E2")]
    public async Task E2_A_request_of_no_bytes_succeeds_without_a_layer()
    {
        var chain = new RecordedChain("filter");
        await using ChainServer server = await ChainServer.StartAsync(chain.Backend);
        WireClient client = await server.TransmitAsync();
        chain.Calls.Clear();
        foreach (ushort command in new[] { Cmd.WriteZeroes, Cmd.Trim, Cmd.Write, Cmd.Read, Cmd.Cache })
        {
            await client.ExpectCallAsync(Errno.Ok, command, 100, 0, payload: command == Cmd.Write ? [] : null);
        }
        Assert.That(chain.Take(), Is.Empty);
    }

    [Test, Property("Rule", "E13")]
    public async Task E13_A_zero_may_trim_unless_the_client_wants_no_hole()
    {
        var chain = new RecordedChain("filter");
        await using ChainServer server = await ChainServer.StartAsync(chain.Backend);
        WireClient client = await server.TransmitAsync();
        await client.ExpectCallAsync(Errno.Ok, Cmd.WriteZeroes, 0, 8);
        await client.ExpectCallAsync(Errno.Ok, Cmd.WriteZeroes, 0, 8, CmdFlag.NoHole);
        await client.ExpectCallAsync(Errno.Ok, Cmd.WriteZeroes, 0, 8, CmdFlag.FastZero | CmdFlag.Fua);
        Assert.That(chain.Calls.Calls.Where(c => c is { Layer: "plugin", Callback: "zero" }).Select(c => c.Flags), Is.EqualTo(new[]
        {
            RequestFlags.MayTrim, RequestFlags.None, RequestFlags.MayTrim | RequestFlags.FastZero | RequestFlags.Fua,
        }));
    }
}
