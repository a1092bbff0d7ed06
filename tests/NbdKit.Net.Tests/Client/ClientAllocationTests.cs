using System.Diagnostics;
using System.Reflection;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Client;

/// <summary>In the steady state a request of the client allocates nothing, from the call to what continues after it.</summary>
[NonParallelizable]
public sealed class ClientAllocationTests
{
    private const int Requests = 100_000;
    private const int Depth = 32;

    [TestCase("read", 4096, false)]
    [TestCase("read", 4096, true)]
    [TestCase("write", 4096, false)]
    [TestCase("large read", 128 << 10, true)]
    [TestCase("large write", 128 << 10, false)]
    [TestCase("flush", 0, true)]
    [TestCase("zero", 4096, true)]
    [TestCase("extents", 4096, true)]
    public async Task A_request_allocates_nothing(string name, int length, bool structured)
    {
        Assume.That(OperatingSystem.IsLinux());
        // The runner's own asynchronous context allocates with each continuation that it flows to.
        Task measuring;
        using (ExecutionContext.SuppressFlow())
        {
            measuring = Task.Run(() => MeasureAsync(name, length, structured));
        }
        await measuring;
    }

    private static async Task MeasureAsync(string name, int length, bool structured)
    {
        int requests = length > 4096 ? 5_000 : Requests;
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 64 << 20 });
        NbdClient client = await NbdClient.ConnectAsync(
            server.Uri, new NbdClientOptions { RequestStructuredReplies = structured, RequestExtendedHeaders = false });
        byte[][] buffers = [.. Enumerable.Range(0, Depth).Select(_ => new byte[length])];
        ExtentList?[] lists = new ExtentList?[Depth];

        await RunAsync(requests);
        // The quietest of several rounds counts: the runner and the runtime allocate now and then.
        long allocated = long.MaxValue;
        for (int round = 0; round < 4; round++)
        {
            long before = GC.GetTotalAllocatedBytes(precise: true);
            await RunAsync(requests);
            allocated = Math.Min(allocated, GC.GetTotalAllocatedBytes(precise: true) - before);
        }
        await client.DisposeAsync();

        // Without optimization every asynchronous method is an object: there only what grows is caught. A block status that waits
        // asynchronously in the server, and the list that receives it, are not the client's.
        bool optimized = typeof(NbdClient).Assembly.GetCustomAttribute<DebuggableAttribute>() is not { IsJITOptimizerDisabled: true };
        long most = name == "extents" ? 1500L * requests : optimized ? Math.Max(requests / 8, 12_000) : requests * 40L;
        Assert.That(allocated, Is.LessThan(most), $"{name}: {allocated} bytes for {requests} requests");

        Task RunAsync(int count)
        {
            var workers = new Task[Depth];
            for (int i = 0; i < Depth; i++)
            {
                workers[i] = WorkAsync(i, count / Depth);
            }
            return Task.WhenAll(workers).WaitAsync(TimeSpan.FromSeconds(60));
        }

        async Task WorkAsync(int worker, int count)
        {
            long offset = worker * (long)length;
            for (int i = 0; i < count; i++)
            {
                switch (name)
                {
                    case "read" or "large read":
                        await client.ReadAsync(buffers[worker], offset);
                        break;
                    case "write" or "large write":
                        await client.WriteAsync(buffers[worker], offset);
                        break;
                    case "flush":
                        await client.FlushAsync();
                        break;
                    case "zero":
                        await client.ZeroAsync(offset, length);
                        break;
                    default:
                        lists[worker] = new ExtentList(offset, 64 << 20);
                        await client.ExtentsAsync(offset, length, RequestFlags.None, lists[worker]!);
                        break;
                }
            }
        }
    }
}
