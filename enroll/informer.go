// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
)

// NewInformer returns an informer for the cache of a manager that runs a [Reconciler]. If the API server
// can stream the objects, the informer is as usual. Otherwise the informer lists the objects page by
// page. API servers of Kubernetes 1.33 stream none by default, and would send all objects in one answer.
func NewInformer(lw toolscache.ListerWatcher, example runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
	from := toolscache.ToListerWatcherWithContext(lw)
	return toolscache.NewSharedIndexInformer(&toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return listStripped(ctx, from, options)
		},
		WatchFuncWithContext: from.WatchWithContext,
	}, example, resync, indexers)
}

// listStripped lists all objects, and strips each page of them before it reads the next page. The
// cache strips the objects once more, which changes nothing. The list is a consistent read, because
// older API servers ignore the limit of any other list.
func listStripped(ctx context.Context, from toolscache.ListerWithContext, options metav1.ListOptions) (runtime.Object, error) {
	var whole runtime.Object
	var objects []runtime.Object
	options.ResourceVersion, options.ResourceVersionMatch = "", ""
	err := process.pages(ctx, func(ctx context.Context, limit int64, page string) (next string, err error) {
		options.Limit, options.Continue = limit, page
		list, err := from.ListWithContext(ctx, options)
		if err != nil {
			return "", err
		}
		read, err := stripped(list)
		if err != nil {
			return "", err
		}
		objects = append(objects, read...)
		if whole == nil {
			whole = list
		}
		return continueOf(list)
	})
	if err != nil {
		return nil, err
	}
	return whole, meta.SetList(whole, objects)
}

// stripped takes the objects out of the list, and strips them.
func stripped(list runtime.Object) (objects []runtime.Object, err error) {
	if objects, err = meta.ExtractListWithAlloc(list); err != nil {
		return nil, err
	}
	for _, object := range objects {
		if _, err := strip(object); err != nil {
			return nil, err
		}
	}
	return objects, meta.SetList(list, nil)
}

// continueOf removes the token of the next page from the list, and returns the token.
func continueOf(list runtime.Object) (token string, err error) {
	about, err := meta.ListAccessor(list)
	if err != nil {
		return "", err
	}
	token = about.GetContinue()
	about.SetContinue("")
	about.SetRemainingItemCount(nil)
	return token, nil
}
