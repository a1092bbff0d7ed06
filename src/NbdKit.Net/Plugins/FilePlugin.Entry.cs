using Microsoft.Win32.SafeHandles;
using NbdKit.Native;

namespace NbdKit.Plugins;

// The command's parameters.
public sealed partial class FilePlugin
{
    /// <summary>The plugin in the catalogue, as <c>file</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "file",
        "serves a file, a block device, or the files of a directory",
        [
            new NbdParameter("file", "the file or block device to serve; this, dir=, fd= or dirfd= is required"),
            new NbdParameter("dir", "the directory to serve: each regular file and block device in it is an export"),
            new NbdParameter("directory", "the same as dir="),
            new NbdParameter("fd", "in place of file=: the number of an inherited descriptor of the file, at least 3 (Linux)"),
            new NbdParameter("dirfd", "in place of dir=: the number of an inherited descriptor of the directory, at least 3 (Linux)"),
            new NbdParameter("cache", "default, or none to keep what is read and written out of the page cache (default: default)"),
            new NbdParameter("fadvise", "how the file will be accessed: normal, random or sequential (default: normal)"),
            new NbdParameter("follow-links", "whether links in the directory are followed, wherever they lead (default: false)"),
        ],
        Create)
    {
        MagicParameter = "file",
    };

    private static FilePlugin Create(NbdParameters parameters)
    {
        string[] sources = ["file", "fd", "dir", "directory", "dirfd"];
        if (sources.Count(name => parameters.Text(name) is not null) != 1)
        {
            throw new ArgumentException("file: exactly one of the parameters file=, fd=, dir= (or directory=) and dirfd= is required.");
        }
        return new FilePlugin
        {
            Path = parameters.Text("file"),
            Directory = parameters.Text("dir") ?? parameters.Text("directory")
                ?? (Inherited(parameters, "dirfd") is { } directory ? $"/proc/self/fd/{directory}" : null),
            // Not opened anew: it may say more, or less, than what its file allows this user.
            Handle = Inherited(parameters, "fd") is { } file ? new SafeFileHandle(file, ownsHandle: false) : null,
            FollowLinks = parameters.Boolean("follow-links") ?? false,
            Cache = parameters.OneOf("cache", ("default", FileCacheMode.Default), ("none", FileCacheMode.None))
                ?? FileCacheMode.Default,
            Advice = parameters.OneOf(
                "fadvise",
                ("normal", FileAdvice.Normal),
                ("random", FileAdvice.Random),
                ("sequential", FileAdvice.Sequential)) ?? FileAdvice.Normal,
        };
    }

    /// <summary>The number of a descriptor that was open when the process began.</summary>
    private static int? Inherited(NbdParameters parameters, string name)
    {
        if (parameters.Integer(name) is not { } number)
        {
            return null;
        }
        string? fault = number < 3 ? "0 to 2 are the standard streams"
            : !LinuxFile.IsAvailable ? "descriptors are served on 64-bit Linux only"
            : !LinuxFile.IsInherited(number) ? "no such descriptor was inherited"
            : null;
        return fault is null ? number : throw new ArgumentException($"file: {name}={number}: {fault}.");
    }
}
