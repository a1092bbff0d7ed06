using System.Buffers.Binary;
using System.Diagnostics;
using System.Net.Sockets;
using System.Reflection;
using NbdKit.Filters;
using NbdKit.Native;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>In the steady state a request allocates nothing, from the socket to the plugin and back.</summary>
[NonParallelizable]
public sealed class AllocationTests
{
    private const int Requests = 100_000;
    private const int Depth = 50;
    private const int Length = 4096;

    [TestCase("read", (ushort)0, false)]
    [TestCase("read", (ushort)0, true)]
    [TestCase("write", (ushort)1, false)]
    [TestCase("write", (ushort)1, true)]
    [TestCase("flush", (ushort)3, false)]
    [TestCase("trim", (ushort)4, false)]
    [TestCase("write zeroes", (ushort)6, false)]
    public async Task A_request_allocates_nothing_through_four_filters_that_move_it(
        string name, ushort command, bool structured)
    {
        NbdBackend chain = NbdBackend.Compose(
            new MemoryPlugin { Size = 64 << 20 },
            new OffsetFilter { Offset = 4096 },
            new OffsetFilter { Offset = 4096 },
            new NofilterFilter(),
            new OffsetFilter { Offset = 4096 },
            new OffsetFilter { Offset = 4096 });
        await MeasureAsync(chain, name, command, structured, Length, Requests);
    }

    [TestCase("large read", (ushort)0)]
    [TestCase("large write", (ushort)1)]
    public async Task A_large_request_that_is_lent_allocates_nothing(string name, ushort command)
    {
        NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 64 << 20 }, new OffsetFilter { Offset = 4096 });
        await MeasureAsync(chain, name, command, structured: false, 256 << 10, 5_000);
    }

    [TestCase("read", (ushort)0, Length, Requests)]
    [TestCase("write", (ushort)1, Length, Requests)]
    [TestCase("large read", (ushort)0, 256 << 10, 5_000)]
    public async Task A_request_that_the_page_cache_answers_allocates_nothing(string name, ushort command, int length, int requests)
    {
        using var folder = new ScratchDirectory();
        string path = folder.Write("disk", new byte[64 << 20]);
        NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path }, new OffsetFilter { Offset = 4096 });
        await MeasureAsync(chain, name, command, structured: false, length, requests);
    }

    [TestCase("read", (ushort)0, Length, Requests)]
    [TestCase("write", (ushort)1, Length, Requests)]
    [TestCase("flush", (ushort)3, Length, Requests)]
    [TestCase("large read", (ushort)0, 256 << 10, 5_000)]
    public async Task A_request_allocates_nothing_through_filters_that_count_it(string name, ushort command, int length, int requests)
    {
        NbdBackend chain = NbdBackend.Compose(
            new MemoryPlugin { Size = 64 << 20 },
            new StatsFilter(),
            new CountFilter(),
            new PolicyFilter { Decide = (ref PolicyRequest request) => request.Length > 1 << 20 ? NbdError.InvalidArgument : null });
        await MeasureAsync(chain, name, command, structured: false, length, requests);
    }

    [TestCase("read", (ushort)0)]
    [TestCase("write", (ushort)1)]
    public async Task A_request_allocates_nothing_through_filters_that_limit_it(string name, ushort command)
    {
        NbdBackend chain = NbdBackend.Compose(
            new MemoryPlugin { Size = 64 << 20 },
            new LimitFilter(),
            new QuotaFilter { Total = long.MaxValue },
            new TimeLimitFilter { Total = TimeSpan.FromHours(1), Idle = TimeSpan.FromHours(1) },
            new EvilFilter { Probability = 1e-9 },
            new SpinningFilter { MinSeekTime = TimeSpan.Zero, HalfSeekTime = TimeSpan.Zero, MaxSeekTime = TimeSpan.Zero },
            new RetryRequestFilter());
        await MeasureAsync(chain, name, command, structured: false, Length, Requests);
    }

    [TestCase("read", (ushort)0)]
    [TestCase("write", (ushort)1)]
    public async Task A_request_of_2_MiB_that_is_not_lent_allocates_nothing(string name, ushort command)
    {
        // It changes the data, so that nothing can be lent.
        NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 64 << 20 }, new XorFilter { Key = new byte[] { 1, 2, 3 } });
        await MeasureAsync(chain, name, command, structured: false, 2 << 20, 800, depth: 8);
    }

    private static async Task MeasureAsync(
        NbdBackend chain, string name, ushort command, bool structured, int length, int requests, int depth = Depth)
    {
        await using var server = new NbdServer(chain);
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        var wire = new WireClient(sockets, server.ServeAsync(sockets.Server));
        await wire.GreetAsync();
        if (structured)
        {
            await wire.StructuredAsync();
        }
        await wire.GoAsync();

        // The runtime's own calls allocate on a socket that was used asynchronously: the client must not be what is measured.
        Assume.That(OperatingSystem.IsLinux());
        LinuxSocket.MakeBlocking(sockets.Client.SafeHandle);
        byte[] batch = Batch(command, length, depth);
        int header = structured && command == 0 ? 28 : 16;
        byte[] replies = new byte[depth * (header + (command == 0 ? length : 0))];
        // Every path has run and every pool is filled by then. The test runner and the server's clock allocate now and then,
        // so the quietest of three rounds counts.
        Exchange(sockets.Client, batch, replies, requests / depth);
        long allocated = long.MaxValue;
        for (int round = 0; round < 3; round++)
        {
            long before = GC.GetTotalAllocatedBytes(precise: true);
            Exchange(sockets.Client, batch, replies, requests / depth);
            allocated = Math.Min(allocated, GC.GetTotalAllocatedBytes(precise: true) - before);
        }

        Assert.That(
            BinaryPrimitives.ReadUInt32BigEndian(replies.AsSpan(replies.Length - (command == 0 ? length : 0) - header)),
            Is.EqualTo(structured && command == 0 ? 0x668e33efu : 0x67446698u), name);
        // Without optimization every asynchronous method is an object: there only what grows is caught.
        bool optimized = typeof(NbdServer).Assembly.GetCustomAttribute<DebuggableAttribute>() is not { IsJITOptimizerDisabled: true };
        Assert.That(allocated, Is.LessThan(optimized ? Requests / 10 : Requests * 20), $"{name}: {allocated} bytes for {requests} requests");
    }

    private static byte[] Batch(ushort command, int length, int depth)
    {
        var batch = new MemoryStream();
        for (int i = 0; i < depth; i++)
        {
            bool ranged = command != 3;
            batch.Write(WireBytes.Request(command, (ulong)i, ranged ? (ulong)i * (uint)length : 0, ranged ? (uint)length : 0u, 0));
            if (command == 1)
            {
                batch.Write(new byte[length]);
            }
        }
        return batch.ToArray();
    }

    private static void Exchange(Socket client, byte[] batch, byte[] replies, int batches)
    {
        for (int i = 0; i < batches; i++)
        {
            for (int sent = 0; sent < batch.Length;)
            {
                sent += Math.Max(0, LinuxSocket.Send(client.SafeHandle, batch.AsSpan(sent)));
            }
            for (int received = 0; received < replies.Length;)
            {
                int count = LinuxSocket.Receive(client.SafeHandle, replies.AsSpan(received), wait: true);
                if (count == 0)
                {
                    Assert.Fail("The server closed the connection.");
                }
                received += Math.Max(0, count);
            }
        }
    }
}
