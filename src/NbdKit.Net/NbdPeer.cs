using System.Net;
using NbdKit.Server;

namespace NbdKit;

/// <summary>Who is at the other end of a connection, as far as the transport can tell.</summary>
public sealed record NbdPeer
{
    /// <summary>A peer of which nothing is known: one that is served over a plain stream or pipe.</summary>
    public static NbdPeer Unknown { get; } = new();

    /// <summary>The address of the client, or null if the transport has none.</summary>
    public EndPoint? EndPoint { get; init; }

    /// <summary>The process id of the client, for Unix sockets on Linux; else null.</summary>
    public int? ProcessId { get; init; }

    /// <summary>The user id of the client, for Unix sockets on Linux; else null.</summary>
    public uint? UserId { get; init; }

    /// <summary>The group id of the client, for Unix sockets on Linux; else null.</summary>
    public uint? GroupId { get; init; }

    /// <summary>The peer in a few words, for logs.</summary>
    public override string ToString()
        => ProcessId is { } pid ? $"unix (pid {pid}, uid {UserId})" : EndPoint?.ToString() is { Length: > 0 } text
            ? LogText.Clean(text, 128)
            : "stream";
}
