using System.Diagnostics;
using System.Globalization;
using NbdKit.Plugins;

namespace NbdKit.Faults.Hostile;

/// <summary>
/// A server and its clients in a network namespace that was made for them, whose loopback loses packets or takes only small ones.
/// The namespace ends with the process; the machine's own network is not touched.
/// </summary>
internal static class LossyNetwork
{
    private const string BlackHole = "black-hole";

    // What the script ends with when there can be no such namespace here.
    private const int NoNamespace = 77;

    private const string Script = """
        fault=$1; shift
        ip link set lo up || exit 77
        nft 'add table inet f; add chain inet f c { type filter hook input priority 0; }' || exit 77
        case $fault in
        drop-*) nft "add rule inet f c numgen random mod 100 < ${fault#drop-} drop" || exit 77;;
        mtu-*) ip link set lo mtu "${fault#mtu-}" || exit 77;;
        esac
        exec "$@"
        """;

    private static readonly TimeSpan Stall = TimeSpan.FromSeconds(2);

    /// <summary>What is done to the packets.</summary>
    public static string[] Faults { get; } = ["drop-1", "drop-5", "drop-10", "mtu-576", BlackHole];

    /// <summary>Runs one fault in a process and a namespace of its own.</summary>
    /// <param name="fault">One of <see cref="Faults"/>.</param>
    /// <param name="variant">How the clients connect; see <see cref="ClientVariant"/>.</param>
    /// <param name="time">How long.</param>
    /// <param name="seed">Where the randomness comes from.</param>
    /// <returns>What was seen, or why it cannot be done here.</returns>
    public static async Task<string> RunAsync(string fault, int variant, TimeSpan time, int seed)
    {
        string? missing = new[] { "unshare", "ip", "nft" }.FirstOrDefault(tool => !IsInstalled(tool));
        if (missing is not null)
        {
            return $"{fault} SKIPPED: there is no {missing}";
        }
        string[] how = System.Environment.IsPrivilegedProcess ? ["--net"] : ["--user", "--map-root-user", "--net"];
        string[] self = [System.Environment.ProcessPath!, "--lossy", fault, .. new[] { variant, (long)time.TotalSeconds, seed }
            .Select(number => number.ToString(CultureInfo.InvariantCulture))];
        var start = new ProcessStartInfo("unshare", [.. how, "/bin/sh", "-c", Script, "sh", fault, .. self])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process child = Process.Start(start)!;
        Task<string> output = child.StandardOutput.ReadToEndAsync();
        Task<string> error = child.StandardError.ReadToEndAsync();
        await child.WaitForExitAsync().WaitAsync(time + (120 * ProcessUse.Patience));
        string said = (await output).Trim();
        bool isPossible = !said.StartsWith("unshare:", StringComparison.Ordinal) && child.ExitCode != NoNamespace
            && !(await error).StartsWith("unshare:", StringComparison.Ordinal);
        if (!isPossible && System.Environment.GetEnvironmentVariable("NBDKIT_NET_REQUIRE_PEERS") != "1")
        {
            return $"{fault} SKIPPED: no network namespace can be made ({(await error).Trim()})";
        }
        return child.ExitCode == 0 ? said : throw new InvalidOperationException($"{fault}: {said} {(await error).Trim()}");
    }

    /// <summary>The program in the namespace.</summary>
    public static async Task<int> ServeAsync(string[] args)
    {
        string fault = args[0];
        long[] numbers = [.. args[1..].Select(text => long.Parse(text, CultureInfo.InvariantCulture))];
        var time = TimeSpan.FromSeconds(numbers[1]);
        var random = new Random((int)numbers[2]);
        var variant = (ClientVariant)numbers[0];
        using var watch = new HostWatch();
        await using FaultServer server = await FaultServer.StartAsync(new MemoryPlugin { Size = TaggedWork.Bytes }, variant.Serving() with
        {
            StallTimeout = Stall,
            KeepAlive = new NbdKeepAlive { Time = TimeSpan.FromSeconds(1), Interval = TimeSpan.FromSeconds(1), Retries = 3 },
        });
        var work = new TaggedWork($"{fault} {variant}", variant.Connecting(2 * Stall), mayFail: !fault.StartsWith("mtu", StringComparison.Ordinal));
        string said = "";
        if (fault == BlackHole)
        {
            Task<string> working = work.RunAsync(server.Tcp, 0, time, random);
            await Task.Delay(time / 4);
            said = await SwallowAsync(server, time / 2);
            said = $"{await working}{said}";
        }
        else
        {
            said = await work.RunAsync(server.Tcp, 0, time, random);
        }
        await ProcessUse.UntilAsync(
            () => server.Server.Connections.Count == 0,
            Stall + (10 * ProcessUse.Patience),
            () => $"{server.Server.Connections.Count} connections outlived their clients");
        server.Log.AssertClean();
        await watch.CheckAsync(leavesNothing: false);
        await Console.Out.WriteLineAsync(said);
        return 0;
    }

    /// <summary>Every packet is lost for a while: the server must find out by itself, without hearing of anybody.</summary>
    private static async Task<string> SwallowAsync(FaultServer server, TimeSpan time)
    {
        var watch = Stopwatch.StartNew();
        await FilterAsync("add rule inet f c drop");
        TimeSpan ended = await ProcessUse.UntilAsync(
            () => server.Server.Connections.Count == 0,
            // As long as it takes to miss the probes that were set, and to look.
            TimeSpan.FromSeconds(4) + Stall + ProcessUse.Patience,
            () => $"{server.Server.Connections.Count} connections were still there {watch.Elapsed.TotalSeconds:F1} s after the last packet");
        TimeSpan rest = time - watch.Elapsed;
        await Task.Delay(rest > TimeSpan.Zero ? rest : TimeSpan.Zero);
        await FilterAsync("flush chain inet f c");
        return $", all closed {ended.TotalSeconds:F1} s after the last packet";
    }

    private static async Task FilterAsync(string rule)
    {
        using Process nft = Process.Start("nft", [rule])!;
        await nft.WaitForExitAsync();
        if (nft.ExitCode != 0)
        {
            throw new InvalidOperationException($"nft {rule} ended with {nft.ExitCode}.");
        }
    }

    private static bool IsInstalled(string tool)
        => new[] { "/usr/sbin", "/usr/bin", "/sbin", "/bin" }.Any(folder => File.Exists(Path.Combine(folder, tool)));
}
