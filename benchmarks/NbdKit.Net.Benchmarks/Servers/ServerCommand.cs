using System.Net;
using System.Net.Sockets;

namespace NbdKit.Benchmarks.Servers;

/// <summary>How a server is started, and where it listens then.</summary>
internal sealed record ServerCommand(EndPoint EndPoint, string Program, IReadOnlyList<string> Arguments)
{
    /// <summary>The file in which the program writes the number of the process that it leaves behind, or null if it serves itself.</summary>
    public string? NumberFile { get; init; }

    /// <summary>What the disk is called.</summary>
    public string ExportName { get; init; } = "";

    /// <summary>The command of this project: nbdkit's command line.</summary>
    public static ServerCommand Ours(Settings settings, UnixDomainSocketEndPoint socket, params IEnumerable<string> arguments)
        => OfTool(settings.Tool ?? Repository.Tool, socket, arguments);

    /// <summary>The command of this project in a file, which is a program or the assembly of one.</summary>
    public static ServerCommand OfTool(string tool, UnixDomainSocketEndPoint socket, params IEnumerable<string> arguments)
    {
        IEnumerable<string> all = ["-U", $"{socket}", .. arguments];
        return tool.EndsWith(".dll", StringComparison.Ordinal)
            ? new ServerCommand(socket, DotNet, [tool, .. all])
            : new ServerCommand(socket, tool, [.. all]);
    }

    public static ServerCommand Nbdkit(UnixDomainSocketEndPoint socket, params IEnumerable<string> arguments)
        => new(socket, "nbdkit", ["-f", "-U", $"{socket}", .. arguments]);

    public static ServerCommand QemuNbd(UnixDomainSocketEndPoint socket, string file, params IEnumerable<string> arguments)
        => new(socket, "qemu-nbd", ["--persistent", "--shared=0", "--format=raw", "-k", $"{socket}", .. arguments, file]);

    /// <summary>nbd-server, which also listens on a port, and serves many clients only in the background.</summary>
    public static ServerCommand NbdServer(Scratch scratch, string file)
    {
        UnixDomainSocketEndPoint socket = scratch.NewSocket();
        string configuration = $"{socket}.conf";
        File.WriteAllText(configuration, $"""
            [generic]
                unixsock = {socket}
                port = {Scratch.NewPort().Port}
                allowlist = true
            [disk]
                exportname = {file}
            """);
        return new ServerCommand(socket, "nbd-server", ["-C", configuration, "-p", $"{socket}.pid"]) { NumberFile = $"{socket}.pid", ExportName = "disk" };
    }

    /// <summary>The library in a process of this program's own; see <see cref="Modes.ServeMode"/>.</summary>
    public static ServerCommand Library(EndPoint endPoint, long size, int maxConnections = 100, bool asStream = false)
    {
        string address = endPoint is IPEndPoint ip ? $"{ip.Port}" : $"{endPoint}";
        string transport = asStream ? "stream" : endPoint is IPEndPoint ? "tcp" : "unix";
        (string program, string[] arguments) = OfSelf(Modes.ServeMode.Name, transport, address, $"{size}", $"{maxConnections}");
        return new ServerCommand(endPoint, program, arguments);
    }

    /// <summary>This program with arguments.</summary>
    public static (string Program, string[] Arguments) OfSelf(params string[] arguments)
        => (DotNet, [typeof(ServerCommand).Assembly.Location, .. arguments]);

    public static string DotNet => Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet";
}
