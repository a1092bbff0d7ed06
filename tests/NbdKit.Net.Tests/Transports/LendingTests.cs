using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Transports;

/// <summary>
/// Large reads that the kernel sends from where the bytes lie: they arrive right, also when the client takes its time and what
/// lay there is changed, given up or gone meanwhile.
/// </summary>
[NonParallelizable]
public sealed class LendingTests
{
    private const int Size = 16 << 20;
    private const int Large = 1 << 20;
    private const ushort Read = 0;
    private const ushort Write = 1;
    private const ushort Trim = 4;

    [Test]
    public async Task Ranges_of_a_file_arrive_as_they_are([Values] bool tcp, [Values] bool structured, [Values] bool cow)
    {
        const int seed = 815;
        var random = new Random(seed);
        byte[] model = new byte[Size];
        random.NextBytes(model);
        using var folder = new ScratchDirectory();
        var plugin = new FilePlugin { Path = folder.Write("disk", model) };
        await using var server = new NbdServer(
            cow ? NbdBackend.Compose(plugin, new CowFilter { BlockSize = 64 << 10 }) : NbdBackend.Compose(plugin));
        using SocketPair sockets = await SocketPair.CreateAsync(tcp);
        await using WireClient client = await sockets.GoAsync(server, structured);
        for (int i = 0; i < 60; i++)
        {
            int length = random.Next(60_000, random.Next(2) == 0 ? 80_000 : 3 << 20);
            int offset = random.Next(Size - length);
            if (random.Next(4) == 0)
            {
                byte[] data = new byte[length];
                random.NextBytes(data);
                data.CopyTo(model, offset);
                await client.WriteDataAsync((ulong)offset, data);
            }
            byte[] found = await client.ReadDataAsync((ulong)offset, (uint)length);
            Assert.That(found.AsSpan().SequenceEqual(model.AsSpan(offset, length)), Is.True, $"seed {seed}, operation {i}");
        }
    }

    [Test]
    public async Task A_file_that_became_shorter_fails_the_read_and_not_the_connection()
    {
        using var folder = new ScratchDirectory();
        string path = folder.Write("disk", TestData.Random(Size));
        await using var server = new NbdServer(NbdBackend.Compose(new FilePlugin { Path = path }));
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        await using WireClient client = await sockets.GoAsync(server, structured: false);
        Assert.That(await client.ReadDataAsync(Size - Large, Large), Is.EqualTo(TestData.Random(Size)[^Large..]));
        using (FileStream file = File.OpenWrite(path))
        {
            file.SetLength(Size - 1);
        }
        await client.SendRequestAsync(Read, Size - Large, Large);
        Assert.That((await client.ReadReplyAsync()).Error, Is.EqualTo(Errno.Io));
        Assert.That(await client.ReadDataAsync(0, Large), Is.EqualTo(TestData.Random(Size)[..Large]));
    }

    [Test]
    public async Task A_file_that_becomes_shorter_under_a_reply_ends_the_connection_with_a_reason()
    {
        Assume.That(OperatingSystem.IsLinux());
        using var folder = new ScratchDirectory();
        string path = folder.Write("disk", TestData.Random(Size));
        await using var server = new NbdServer(NbdBackend.Compose(new FilePlugin { Path = path }));
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        await using WireClient client = await sockets.GoAsync(server, structured: false);
        // One reply, many times as large as what the socket takes. A byte of it tells that the server is at it.
        await client.SendRequestAsync(Read, 0, Size);
        await client.ReadAsync(1);
        using (FileStream file = File.OpenWrite(path))
        {
            file.SetLength(Large);
        }
        try
        {
            await client.ReadToEndAsync();
        }
        catch (IOException)
        {
            // A reset may overtake what was sent.
        }
        Assert.That((await client.Ended.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ConnectionLost));
    }

    [Test]
    public async Task A_reply_that_waits_in_the_socket_never_shows_another_part_of_the_disk()
    {
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = Size }));
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        using SocketPair otherSockets = await SocketPair.CreateAsync(tcp: false);
        await using WireClient client = await sockets.GoAsync(server, structured: false);
        await using WireClient other = await otherSockets.GoAsync(server, structured: false);
        for (int i = 0; i < 8; i++)
        {
            await other.WriteDataAsync((ulong)(i * Large), Filled(1));
        }
        var calls = new List<WireCall>();
        for (int i = 0; i < 8; i++)
        {
            calls.Add(await client.SendRequestAsync(Read, (ulong)(i * Large), Large));
        }
        // As much as the socket takes is on its way now, the rest waits in the server.
        await Task.Delay(50);
        await other.CallAsync(Trim, 0, 8 * Large);
        for (int i = 8; i < 16; i++)
        {
            await other.WriteDataAsync((ulong)(i * Large), Filled(2));
        }
        GC.Collect();
        GC.WaitForPendingFinalizers();
        byte[] noise = GC.AllocateUninitializedArray<byte>(32 << 20, pinned: true);
        Array.Fill(noise, (byte)3);
        foreach (WireCall _ in calls)
        {
            WireReply reply = await client.ReadReplyAsync();
            Assert.That(reply.Error, Is.Zero);
            Assert.That(reply.Data.AsSpan().IndexOfAnyExcept((byte)0, (byte)1), Is.EqualTo(-1));
        }
        Assert.That(await other.ReadDataAsync(8 * Large, Large), Is.EqualTo(Filled(2)));
        GC.KeepAlive(noise);
    }

    [Test]
    public async Task Clients_that_take_nothing_do_not_keep_the_pipes_of_others_or_descriptors_when_they_go()
    {
        Assume.That(OperatingSystem.IsLinux());
        await using var server = new NbdServer(NbdBackend.Compose(new MemoryPlugin { Size = Size }));
        int before = Directory.GetFileSystemEntries("/proc/self/fd").Length;
        var deaf = new List<(SocketPair Sockets, WireClient Client)>();
        // More than there are pipes.
        for (int i = 0; i < 80; i++)
        {
            SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
            WireClient client = await sockets.GoAsync(server, structured: false);
            deaf.Add((sockets, client));
            for (int k = 0; k < 4; k++)
            {
                await client.SendRequestAsync(Read, 0, Large);
            }
        }
        using SocketPair politeSockets = await SocketPair.CreateAsync(tcp: false);
        await using (WireClient polite = await politeSockets.GoAsync(server, structured: false))
        {
            await polite.WriteDataAsync(4 << 20, Filled(5));
            Assert.That(await polite.ReadDataAsync(4 << 20, Large), Is.EqualTo(Filled(5)));
        }
        foreach ((SocketPair sockets, WireClient client) in deaf)
        {
            await client.CutAsync();
            sockets.Dispose();
            await client.Ended.Soon();
        }
        await server.DisposeAsync();
        Assert.That(Directory.GetFileSystemEntries("/proc/self/fd"), Has.Length.LessThan(before + 20));
    }

    private static byte[] Filled(byte value)
    {
        byte[] bytes = new byte[Large];
        Array.Fill(bytes, value);
        return bytes;
    }
}
