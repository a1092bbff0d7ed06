using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>What NBD_FLAG_CAN_MULTI_CONN promises, across a power cut.</summary>
public sealed class SharedDiskPowerCutTests
{
    private const int Size = 64 << 10;
    private const int Block = 512;
    private const int Cuts = 24;
    private const int Rounds = 10;

    [Test, Property("Threat", "P28")]
    public async Task What_one_connection_wrote_and_another_flushed_survives_and_what_nobody_flushed_may_be_lost()
    {
        (PowercutPlugin disk, ChainServer server) = await ServeAsync(isMultiConn: true);
        await using ChainServer serving = server;
        WireClient a = await server.TransmitAsync("");
        WireClient b = await server.TransmitAsync("");
        Assert.That(a.Flags & b.Flags & TxFlag.CanMultiConn, Is.Not.Zero);
        var random = new Random(28);
        byte[] flushed = new byte[Size];
        byte[] written = new byte[Size];
        int lost = 0;
        for (int round = 0; round < Rounds; round++)
        {
            for (int i = 0; i < 8; i++)
            {
                await WriteAsync(i % 2 == 0 ? a : b, random, written);
            }
            // Only one of the two flushes; what was answered before on either has to be there.
            await (round % 2 == 0 ? b : a).ExpectCallAsync(WireError.Ok, Cmd.Flush);
            written.CopyTo(flushed, 0);
            Assert.That((await a.ReadDataAsync(0, Size)).AsSpan().SequenceEqual(written), "the one sees what the other wrote");
            Assert.That((await b.ReadDataAsync(0, Size)).AsSpan().SequenceEqual(written), "the one sees what the other wrote");
            for (int cut = 0; cut < Cuts; cut++)
            {
                Assert.That((await ImageAsync(disk, cut)).AsSpan().SequenceEqual(flushed), $"round {round}, cut {cut}");
            }
            await WriteAsync(a, random, written);
            for (int cut = 0; cut < Cuts; cut++)
            {
                byte[] image = await ImageAsync(disk, cut);
                bool isLost = image.AsSpan().SequenceEqual(flushed);
                Assert.That(isLost || image.AsSpan().SequenceEqual(written), $"round {round}, cut {cut}: neither before nor after the write");
                lost += isLost ? 1 : 0;
            }
        }
        Assert.That(lost, Is.Not.Zero, "the cuts take what was not flushed");
    }

    [Test, Property("Threat", "P28")]
    public async Task Where_a_flush_is_for_its_own_connection_only_the_promise_is_not_made()
    {
        (PowercutPlugin disk, ChainServer server) = await ServeAsync(isMultiConn: false);
        await using ChainServer serving = server;
        WireClient a = await server.TransmitAsync("");
        WireClient b = await server.TransmitAsync("");
        Assert.That((a.Flags | b.Flags) & TxFlag.CanMultiConn, Is.Zero);
        byte[] written = new byte[Size];
        await WriteAsync(a, new Random(28), written);
        await b.ExpectCallAsync(WireError.Ok, Cmd.Flush);
        int lost = 0;
        for (int cut = 0; cut < Cuts; cut++)
        {
            lost += (await ImageAsync(disk, cut)).AsSpan().SequenceEqual(written) ? 0 : 1;
        }
        Assert.That(lost, Is.Not.Zero, "a power cut takes what only another connection flushed");
        await a.ExpectCallAsync(WireError.Ok, Cmd.Flush);
        for (int cut = 0; cut < Cuts; cut++)
        {
            Assert.That((await ImageAsync(disk, cut)).AsSpan().SequenceEqual(written), $"cut {cut}");
        }
    }

    private static async Task<(PowercutPlugin Disk, ChainServer Server)> ServeAsync(bool isMultiConn)
    {
        var disk = new PowercutPlugin { Chain = NbdBackend.Compose(new ModelPlugin(new byte[Size])), IsMultiConn = isMultiConn };
        return (disk, await ChainServer.StartAsync(NbdBackend.Compose(disk)));
    }

    private static async Task WriteAsync(WireClient client, Random random, byte[] written)
    {
        int offset = random.Next(Size / Block) * Block;
        byte[] data = new byte[Block];
        random.NextBytes(data);
        await client.WriteDataAsync((ulong)offset, data);
        data.CopyTo(written, offset);
    }

    private static async Task<byte[]> ImageAsync(PowercutPlugin disk, int seed)
    {
        await using PowercutImage image = await disk.CutAsync(seed);
        byte[] content = new byte[Size];
        await image.ReadAsync(content, 0);
        return content;
    }
}
