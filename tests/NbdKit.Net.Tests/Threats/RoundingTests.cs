using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>Rounding to blocks where 32 bits would wrap.</summary>
public sealed class RoundingTests
{
    private const long Size = 6L << 60;

    [Test, Property("Threat", "CVE-2025-47712")]
    public async Task Ranges_near_4_GiB_and_near_the_end_are_rounded_without_wrapping([Values(512, 4096, 65_536)] long block)
    {
        var plugin = new TestPlugin(new TestExport("disk") { Size = Size });
        await using ChainServer server = await ChainServer.StartAsync(
            NbdBackend.Compose(plugin, new BlockSizeFilter { MinBlock = block }));
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        await client.SetMetaAsync("disk", "base:allocation");
        await client.GoAsync("disk");
        foreach (ulong offset in new ulong[] { 0, 1, uint.MaxValue, 1ul << 32, (ulong)Size - uint.MaxValue, (ulong)Size - (1ul << 32) })
        {
            foreach (uint length in new[] { 1u << 31, uint.MaxValue - 1, uint.MaxValue })
            {
                foreach (ushort flags in new[] { CmdFlag.None, CmdFlag.ReqOne })
                {
                    // The client judges the extents.
                    await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, offset, length, flags);
                }
                foreach (ushort command in new[] { Cmd.Trim, Cmd.WriteZeroes, Cmd.Cache })
                {
                    await client.ExpectCallAsync(WireError.Ok, command, offset, length);
                }
            }
        }
        Assert.That(plugin.Calls.Select(call => (call.Offset, call.Length)), Has.All.Matches<(long Offset, long Length)>(
            call => call.Offset >= 0 && call.Length > 0 && call.Length <= Size - call.Offset && call.Offset % block == 0));
    }
}
