using System.Net;
using System.Net.Sockets;

namespace NbdKit;

/// <summary>
/// A socket between a virtual machine and its host (AF_VSOCK of Linux), as in <c>nbd+vsock://2:10809/</c>.
/// </summary>
public sealed class VsockEndPoint : EndPoint, IEquatable<VsockEndPoint>
{
    /// <summary>The context identifier that stands for all of this machine, to listen on (VMADDR_CID_ANY).</summary>
    public const uint AnyCid = uint.MaxValue;

    /// <summary>The context identifier of the machine itself, where the system has it (VMADDR_CID_LOCAL).</summary>
    public const uint LocalCid = 1;

    /// <summary>The context identifier of the host, as its guests see it (VMADDR_CID_HOST).</summary>
    public const uint HostCid = 2;

    // struct sockaddr_vm: family 16, reserved 16, port 32, cid 32, flags 8, zeroes 24, in the byte order of the machine.
    internal const int AddressLength = 16;

    private const int Family = 40;

    /// <summary>Creates an address.</summary>
    /// <param name="cid">The context identifier of the machine: <see cref="HostCid"/>, that of a guest, or another constant.</param>
    /// <param name="port">The port. There are 2^32-1 of them; NBD's is 10809, as over TCP.</param>
    public VsockEndPoint(uint cid, uint port)
    {
        Cid = cid;
        Port = port;
    }

    /// <summary>The context identifier of the machine.</summary>
    public uint Cid { get; }

    /// <summary>The port.</summary>
    public uint Port { get; }

    /// <summary>The number of AF_VSOCK on Linux, 40, which has no name in .NET.</summary>
    public override AddressFamily AddressFamily => (AddressFamily)Family;

    /// <inheritdoc/>
    public override SocketAddress Serialize()
    {
        // The family is written by hand: .NET refuses to translate one that it does not know.
        var address = new SocketAddress(AddressFamily.Unspecified, AddressLength);
        Span<byte> bytes = address.Buffer.Span[..AddressLength];
        bytes.Clear();
        BitConverter.TryWriteBytes(bytes, (ushort)Family);
        BitConverter.TryWriteBytes(bytes[4..], Port);
        BitConverter.TryWriteBytes(bytes[8..], Cid);
        return address;
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">It is not an address of this kind.</exception>
    public override EndPoint Create(SocketAddress socketAddress)
    {
        ArgumentNullException.ThrowIfNull(socketAddress);
        return TryRead(socketAddress.Buffer.Span[..socketAddress.Size])
            ?? throw new ArgumentException("This is not an address of a vsock.", nameof(socketAddress));
    }

    /// <summary>Reads an address as the system has it; null if it is of another kind.</summary>
    internal static VsockEndPoint? TryRead(ReadOnlySpan<byte> bytes)
        => bytes.Length >= AddressLength && BitConverter.ToUInt16(bytes) == Family
            ? new VsockEndPoint(BitConverter.ToUInt32(bytes[8..]), BitConverter.ToUInt32(bytes[4..]))
            : null;

    /// <inheritdoc/>
    public bool Equals(VsockEndPoint? other) => other is not null && Cid == other.Cid && Port == other.Port;

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as VsockEndPoint);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(Cid, Port);

    /// <summary>The address as <c>vsock:CID:PORT</c>.</summary>
    public override string ToString() => $"vsock:{Cid}:{Port}";
}
